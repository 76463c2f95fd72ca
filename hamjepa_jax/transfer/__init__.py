"""Transfer of a trained encoder to other labelled data: kNN, probe and logistic regression, from few or all labels."""
