"""From a publisher's files to a prepared folder: checks, numbering, item content and its encoders."""
