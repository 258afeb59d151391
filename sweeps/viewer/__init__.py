"""The one page that shows a sweep, and its two transports: a server on this machine, and a file that holds everything."""
