"""The HTTP interface: one module a group of routes. They parse, call and render; decisions lie behind them."""
