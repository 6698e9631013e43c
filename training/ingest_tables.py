"""The tables of the join, and the steps that SQLite does by itself. A place is one integer for a record (`ingest_places`)."""

from typing import Final

TABLES: Final = """
CREATE TABLE feedback (place INTEGER PRIMARY KEY, id TEXT, prediction BLOB, agent TEXT, task TEXT, verdict TEXT,
                       value TEXT, person TEXT, at INTEGER, consent INTEGER, left_out TEXT);
CREATE TABLE results (place INTEGER PRIMARY KEY, prediction BLOB, request INTEGER, stamp INTEGER, agent TEXT,
                      outputs BLOB);
CREATE TABLE wanted (place INTEGER PRIMARY KEY);
CREATE TABLE requests (place INTEGER PRIMARY KEY, stamp INTEGER, text TEXT, unit INTEGER);
CREATE TABLE votes (task TEXT, text_id BLOB, person TEXT, at INTEGER, place INTEGER, request INTEGER, unit INTEGER,
                    kind TEXT, target TEXT, consent INTEGER);
CREATE TABLE left_out (place INTEGER PRIMARY KEY, reason TEXT);
CREATE TABLE examples (task TEXT, part TEXT, request INTEGER, place INTEGER, kind TEXT, target TEXT, people INTEGER);
CREATE TABLE contradictions (task TEXT, request INTEGER, target TEXT, kind TEXT, person TEXT, place INTEGER);
"""
# The first of equal ids counts, and of results that were delivered again the first in the topic.
MARK: Final = (
    "CREATE INDEX feedback_id ON feedback (id, place)",
    "UPDATE feedback SET left_out = 'duplicate' WHERE EXISTS"
    " (SELECT 1 FROM feedback AS other WHERE other.id = feedback.id AND other.place < feedback.place)",
    "UPDATE feedback SET left_out = 'withdrawn' WHERE left_out IS NULL AND id IN"
    " (SELECT value FROM feedback WHERE verdict = 'withdrawn' AND left_out IS NULL)",
    "CREATE INDEX feedback_prediction ON feedback (prediction)",
)
WANT: Final = (
    "CREATE INDEX results_prediction ON results (prediction, place)",
    "DELETE FROM results WHERE EXISTS"
    " (SELECT 1 FROM results AS other WHERE other.prediction = results.prediction AND other.place < results.place)",
    "INSERT INTO wanted SELECT DISTINCT request FROM results WHERE request IS NOT NULL AND EXISTS"
    " (SELECT 1 FROM feedback WHERE feedback.prediction = results.prediction AND feedback.left_out IS NULL)"
    " ORDER BY request",
)
JOINED: Final = """
SELECT f.place, f.task, f.agent, f.verdict, f.value, f.person, f.at, f.consent,
       r.agent, r.outputs, r.request, r.stamp, q.stamp, q.text, q.unit
FROM feedback AS f LEFT JOIN results AS r ON r.prediction = f.prediction LEFT JOIN requests AS q ON q.place = r.request
WHERE f.left_out IS NULL AND f.verdict NOT IN ('withdrawn', 'reward')
"""
