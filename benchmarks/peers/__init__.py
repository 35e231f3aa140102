"""Ways to do the work: the chapter's, this library's, and those of other libraries."""
