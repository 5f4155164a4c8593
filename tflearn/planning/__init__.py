"""What a run will take, told by compilers, counts and a few measured steps."""
