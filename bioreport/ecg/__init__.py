"""ECG: leads, reading, preprocessing, measurements, simulation."""
