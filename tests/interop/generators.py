"""A task's life with the client that openapi-python-client generates from the server's description."""

import os

from todo_client import AuthenticatedClient
from todo_client.api.tasks import complete_task, create_task, delete_task, get_task, list_tasks, patch_task
from todo_client.models import ListTasksOrder, ListTasksSort, ListTasksStatus, NewTask, Problem, TaskChanges

client = AuthenticatedClient(base_url=os.environ["BASE"], token=os.environ["TOKEN"])
task = create_task.sync(client=client, body=NewTask(title="Buy milk"))
newest = list_tasks.sync(
    client=client, status=ListTasksStatus.PENDING, sort=ListTasksSort.CREATED_AT, order=ListTasksOrder.DESC
)
assert newest.tasks[0].id == task.id, newest
changed = patch_task.sync(task.id, client=client, body=TaskChanges(due_date=None, tags=["errands"]))
assert (changed.title, changed.tags) == ("Buy milk", ["errands"]), changed
assert complete_task.sync(task.id, client=client).completed
assert delete_task.sync_detailed(task.id, client=client).status_code == 204
gone = get_task.sync(task.id, client=client)
assert isinstance(gone, Problem) and gone.error.code == "NOT_FOUND", gone
