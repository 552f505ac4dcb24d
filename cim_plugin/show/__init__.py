"""What a transformation network has learnt, in pictures and numbers."""
