"""Transfer of a trained encoder to other labelled data, from few or all labels."""
