"""A back end as people have it: FastAPI with SQLModel, integer ids and bcrypt. DATABASE_URL and SECRET are its settings."""

import os
from datetime import date, datetime, timedelta, timezone

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from passlib.context import CryptContext
from pydantic import BaseModel, NaiveDatetime
from sqlmodel import Field, Session, SQLModel, create_engine, select

passwords = CryptContext(schemes=["bcrypt"], deprecated="auto")


def now():
    return datetime.now(timezone.utc).replace(tzinfo=None)


class User(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(unique=True, index=True)
    full_name: str | None = None
    hashed_password: str
    is_active: bool = True
    created_at: NaiveDatetime = Field(default_factory=now)


class Task(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user.id", index=True)
    title: str = Field(max_length=200)
    description: str | None = None
    completed: bool = False
    priority: str = "medium"
    due_date: date | None = None
    created_at: NaiveDatetime = Field(default_factory=now)
    updated_at: NaiveDatetime = Field(default_factory=now)


class Login(BaseModel):
    email: str
    password: str


engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))
app = FastAPI()
bearer = HTTPBearer()


def caller(credentials: HTTPAuthorizationCredentials = Depends(bearer)):
    return int(jwt.decode(credentials.credentials, os.environ["SECRET"], algorithms=["HS256"])["sub"])


def own(session, user_id, task_id):
    task = session.get(Task, task_id)
    if task is None or task.user_id != user_id:
        raise HTTPException(404, "Task not found")
    return task


@app.post("/api/auth/login")
def login(sent: Login):
    with Session(engine) as session:
        user = session.exec(select(User).where(User.email == sent.email)).first()
    if user is None or not passwords.verify(sent.password, user.hashed_password):
        raise HTTPException(401, "Wrong email address or password")
    claims = {"sub": str(user.id), "exp": datetime.now(timezone.utc) + timedelta(hours=24)}
    token = jwt.encode(claims, os.environ["SECRET"], algorithm="HS256")
    return {"access_token": token, "token_type": "bearer", "user": {"id": str(user.id), "email": user.email}}


@app.get("/api/tasks")
def list_tasks(user_id: int = Depends(caller)):
    with Session(engine) as session:
        tasks = session.exec(select(Task).where(Task.user_id == user_id).order_by(Task.created_at.desc())).all()
    return {"tasks": tasks, "count": len(tasks)}


@app.get("/api/tasks/{task_id}")
def get_task(task_id: int, user_id: int = Depends(caller)):
    with Session(engine) as session:
        return own(session, user_id, task_id)


@app.patch("/api/tasks/{task_id}/complete")
def toggle_task(task_id: int, user_id: int = Depends(caller)):
    with Session(engine) as session:
        task = own(session, user_id, task_id)
        task.completed = not task.completed
        session.add(task)
        session.commit()
        session.refresh(task)
        return task
