"""Self-contained HTML pages with tables, plots and image galleries; they need no network."""
