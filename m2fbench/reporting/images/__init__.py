"""Pictures of a run: photos with truth, prediction and what differs drawn over them."""
