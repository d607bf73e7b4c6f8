"""The front role: takes the same requests without an engine of its own, has the engine function run them, and answers
for the tasks from the shared store. A poll or an open event stream then costs no GPU."""
