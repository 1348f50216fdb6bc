"""The only way to rows: tables, contracts, ingestion, quality, governed reads."""
