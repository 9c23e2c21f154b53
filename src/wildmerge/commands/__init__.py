"""What each sub-command does: a thin call of one function of its stage.

Libraries are imported by the sub-command that needs them, so that help and refusals come at once.
"""
