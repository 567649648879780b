"""What is computed about networks and runs: complexity and statistics."""
