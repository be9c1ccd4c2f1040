"""What is seen from above: drawn scenes, questions about them with exact answers, and rules that reward answers."""
