"""What a trained network is made of, without the data that it was trained on and the host that trained it."""
