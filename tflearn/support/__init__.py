"""Small tools that every other floor may use and that use none of them."""
