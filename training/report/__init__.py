"""What is written of a model's scores: `report.md`, and the page `report.html`."""
