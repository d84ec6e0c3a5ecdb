"""What follows the frame log: the sample writer, the detection, and who trims behind both."""
