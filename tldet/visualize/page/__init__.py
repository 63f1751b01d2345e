"""Self-contained HTML pages: tables, plots and an image gallery, without network access."""
