"""The commands, one module each: `main` is the whole command on sys.argv, and answers its exit code."""
