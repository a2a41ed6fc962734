"""Parts of the EEG simulator; the public functions are in `bioreport.simulate`."""
