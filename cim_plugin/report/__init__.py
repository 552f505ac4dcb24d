"""What runs came to: side by side in tables and plots, and what a network has learnt in pictures."""
