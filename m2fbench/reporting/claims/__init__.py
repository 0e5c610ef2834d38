"""What a model card claims, and whether the published tables and measured runs bear it out."""
