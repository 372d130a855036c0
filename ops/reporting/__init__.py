"""Reports as pages: layout and drawing."""
