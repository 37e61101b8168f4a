"""What people look at: tables on the terminal and the report page."""
