"""The networks as plain data, one family a file; torch is imported only where one is built."""
