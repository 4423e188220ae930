"""The MUMC model: losses, data, local training and visual question answering, on one machine."""
