"""What is measured on generated molecules, each measure with its definition."""
