"""What makes data unlearnable."""
