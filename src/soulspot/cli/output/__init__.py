"""What prints: tables, times, progress, logs, the terminal. The actions import it."""
