"""4f free-space optics: convolution by lenses and a Fourier mask, and what it costs."""
