"""What is done with a trained model, by command: classes of photographs, and formats that need no cim_plugin."""
