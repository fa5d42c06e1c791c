"""What it means to order a job: placing, screening, cancelling and overriding. Every door calls these."""
