"""What the scanner does: Fourier transform, coils, noise, and the SPIRiT kernel."""
