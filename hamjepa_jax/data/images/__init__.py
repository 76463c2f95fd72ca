"""Single images: decoded, cropped and coloured, with random views of them. Nothing here knows a data set."""
