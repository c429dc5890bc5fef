"""Black-box tests of the saver: LangGraph's contract, through a real router process."""
