"""The data of MDvsFA cGAN (NUST-SIRST)."""
