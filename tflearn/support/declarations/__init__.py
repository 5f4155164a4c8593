"""What a gin file says, as data: statements, names, types, what reaches what.

None of this knows gin; `tflearn.config` reads the files with gin's parser, asks these
modules whether the declaration makes sense, and hands it to gin.
"""
