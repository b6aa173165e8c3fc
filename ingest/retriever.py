"""A course as a LangChain retriever, so that it plugs into anyone's chain."""

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from ingest.course import Course


class CourseRetriever(BaseRetriever):
    """Finds passages of `course`; `search` holds arguments of Course.search, as in {"limit": 3}.

    A passage becomes a Document whose metadata name the file ("source"), "page_first", "page_last", "heading", "score" and
    "relevance".
    """

    course: Any  # a Course; pydantic knows nothing of it
    search: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:  # noqa: ARG002
        course: Course = self.course
        return [
            Document(
                id=hit.passage.id,
                page_content=hit.passage.text,
                metadata={
                    "source": hit.passage.document,
                    "page_first": hit.passage.page_first,
                    "page_last": hit.passage.page_last,
                    "heading": hit.passage.heading,
                    "score": hit.score,
                    "relevance": hit.relevance,
                },
            )
            for hit in course.search(query, **self.search)
        ]
