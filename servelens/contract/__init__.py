"""The ground floor: names, values and bytes that cross a process boundary. No I/O; every room imports from here."""
