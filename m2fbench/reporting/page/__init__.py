"""The report: one long frame, tables and figures made from it, and a page that needs no network."""
