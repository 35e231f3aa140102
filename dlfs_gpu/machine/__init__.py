"""What this process has to work with: memory, threads, and versions of libraries."""
