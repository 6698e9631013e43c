"""The tables of the join, and the steps that SQLite does by itself: it sorts on disk, so that no group of records has to
fit into memory. A place is one integer for a record (`ingest_places`).
"""

from typing import Final

TABLES: Final = """
CREATE TABLE feedback (place INTEGER PRIMARY KEY, id TEXT, prediction BLOB, agent TEXT, task TEXT, verdict TEXT,
                       value TEXT, person TEXT, at INTEGER, consent INTEGER, left_out TEXT);
CREATE TABLE results (place INTEGER PRIMARY KEY, prediction BLOB, request INTEGER, stamp INTEGER, agent TEXT,
                      outputs BLOB);
CREATE TABLE wanted (place INTEGER PRIMARY KEY);
CREATE TABLE requests (place INTEGER PRIMARY KEY, stamp INTEGER, text TEXT, second TEXT, near BLOB, unit INTEGER,
                       conversation BLOB);
CREATE TABLE kept (near BLOB PRIMARY KEY, trained INTEGER) WITHOUT ROWID;
CREATE TABLE kept_conversations (conversation BLOB PRIMARY KEY, trained INTEGER) WITHOUT ROWID;
CREATE TABLE operators (person TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE votes (task TEXT, text_id BLOB, spelling BLOB, person TEXT, at INTEGER, place INTEGER, request INTEGER,
                    kind TEXT, target TEXT, denies INTEGER, unfit TEXT, consent INTEGER);
CREATE TABLE left_out (place INTEGER PRIMARY KEY, reason TEXT);
CREATE TABLE unreadable (role TEXT, place INTEGER, PRIMARY KEY (role, place)) WITHOUT ROWID;
CREATE TABLE drawn (prediction BLOB, task TEXT, rate REAL, PRIMARY KEY (prediction, task)) WITHOUT ROWID;
CREATE TABLE drawn_texts (task TEXT, text_id BLOB, rate REAL, PRIMARY KEY (task, text_id)) WITHOUT ROWID;
CREATE TABLE examples (task TEXT, part TEXT, request INTEGER, place INTEGER, kind TEXT, target TEXT, people INTEGER,
                       rate REAL);
CREATE TABLE contradictions (task TEXT, request INTEGER, target TEXT, kind TEXT, denies INTEGER, person TEXT,
                             place INTEGER);
"""
# The first of equal ids counts, and of results that were delivered again the first in the topic.
MARK: Final = (
    "CREATE INDEX feedback_id ON feedback (id, place)",
    "UPDATE feedback SET left_out = 'duplicate' WHERE EXISTS"
    " (SELECT 1 FROM feedback AS other WHERE other.id = feedback.id AND other.place < feedback.place)",
    # What somebody else withdraws stands, unless an operator does it.
    "UPDATE feedback AS withdrawal SET left_out = 'foreign_withdrawal' WHERE verdict = 'withdrawn' AND left_out IS NULL"
    " AND person NOT IN (SELECT person FROM operators) AND EXISTS (SELECT 1 FROM feedback AS other"
    " WHERE other.id = withdrawal.value AND other.left_out IS NOT 'duplicate' AND other.person <> withdrawal.person)",
)
# Latest first: a withdrawal that was withdrawn itself takes nothing back. The rows are sorted, so read, before any changes.
WITHDRAWALS: Final = (
    "SELECT place, value FROM feedback WHERE verdict = 'withdrawn' AND left_out IS NULL ORDER BY at DESC, place DESC"
)
WITHDRAW: Final = (
    "UPDATE feedback SET left_out = 'withdrawn' WHERE id = :value AND left_out IS NULL AND place <> :place"
    " AND EXISTS (SELECT 1 FROM feedback AS withdrawal WHERE withdrawal.place = :place AND withdrawal.left_out IS NULL)"
)
INDEX: Final = ("CREATE INDEX feedback_prediction ON feedback (prediction)",)
WANT: Final = (
    "CREATE INDEX results_prediction ON results (prediction, place)",
    "DELETE FROM results WHERE EXISTS"
    " (SELECT 1 FROM results AS other WHERE other.prediction = results.prediction AND other.place < results.place)",
    "INSERT INTO wanted SELECT DISTINCT request FROM results WHERE request IS NOT NULL AND EXISTS"
    " (SELECT 1 FROM feedback WHERE feedback.prediction = results.prediction"
    # What was taken back says nothing of a text any more, but the text may have been trained on.
    " AND (feedback.left_out IS NULL OR feedback.left_out = 'withdrawn')"
    # What was drawn may be judged later, and is held out until then.
    " UNION ALL SELECT 1 FROM drawn WHERE drawn.prediction = results.prediction)"
    " ORDER BY request",
)
JOINED: Final = """
SELECT f.prediction, f.place, f.task, f.agent, f.verdict, f.value, f.person, f.at, f.consent,
       r.agent, r.outputs, r.request, r.stamp, q.stamp, q.text, q.second
FROM feedback AS f LEFT JOIN results AS r ON r.prediction = f.prediction LEFT JOIN requests AS q ON q.place = r.request
WHERE f.left_out IS NULL AND f.verdict NOT IN ('withdrawn', 'reward')
"""
# `said` has a row for each target that somebody stands for or denies on a text, `texts` one for each text of a task.
COUNT: Final = (
    # A person's last verdict on a text counts, and of those only what is fit, consented to and names a label.
    "CREATE TABLE verdicts AS SELECT task, text_id, spelling, person, at, place, request, kind, target, denies,"
    " CASE WHEN unfit IS NOT NULL THEN unfit WHEN nth > 1 THEN 'superseded' WHEN NOT consent THEN 'no_consent'"
    " WHEN target IS NULL THEN 'no_label' END AS left_out FROM"
    " (SELECT *, row_number() OVER (PARTITION BY task, text_id, person ORDER BY at DESC, place DESC) AS nth FROM votes)",
    "DROP TABLE votes",
    "CREATE TABLE said (task TEXT, text_id BLOB, kind TEXT, target TEXT, people INTEGER, denied INTEGER,"
    " request INTEGER, place INTEGER, PRIMARY KEY (task, text_id, kind, target)) WITHOUT ROWID",
    # Of several spellings that of the newest verdict is kept.
    "INSERT INTO said SELECT task, text_id, kind, target, sum(NOT denies), sum(denies),"
    " min(request) FILTER (WHERE NOT denies AND spelling = newest), min(place) FILTER (WHERE NOT denies AND spelling = newest)"
    " FROM (SELECT *, first_value(spelling) OVER (PARTITION BY task, text_id, kind, target"
    " ORDER BY denies, at DESC, place DESC) AS newest FROM verdicts WHERE left_out IS NULL)"
    " GROUP BY task, text_id, kind, target",
    # The target of most people, agreed when they are more than all who stand for another one or deny it. Columns beside
    # max() are those of its row.
    "CREATE TABLE texts (task TEXT, text_id BLOB, agreed INTEGER, request INTEGER, place INTEGER, kind TEXT,"
    " target TEXT, people INTEGER, PRIMARY KEY (task, text_id)) WITHOUT ROWID",
    "INSERT INTO texts SELECT task, text_id, 2 * most > everybody + denied, request, place, kind, target, most FROM"
    " (SELECT task, text_id, max(people) AS most, sum(people) AS everybody, denied, request, place, kind, target"
    " FROM said WHERE people > 0 GROUP BY task, text_id)",
    # A text is held out only when everything is that it was seen in, in whatever spelling, for whatever task.
    "CREATE TABLE near (near BLOB PRIMARY KEY, unit INTEGER) WITHOUT ROWID",
    "INSERT INTO near SELECT near, max(unit) FROM requests GROUP BY near",
)
# What was trained on once is never held out later: of several assignments that to the train part counts.
KEEP: Final = "INSERT INTO kept VALUES (?, ?) ON CONFLICT DO UPDATE SET trained = max(trained, excluded.trained)"
KEEP_CONVERSATION: Final = (
    "INSERT INTO kept_conversations VALUES (?, ?) ON CONFLICT DO UPDATE SET trained = max(trained, excluded.trained)"
)
ASSIGN_CONVERSATIONS: Final = (
    "UPDATE requests SET unit = (SELECT CASE WHEN trained THEN 9223372036854775807 ELSE -1 END FROM kept_conversations AS c"
    " WHERE c.conversation = requests.conversation)"
    " WHERE conversation IN (SELECT conversation FROM kept_conversations)"
)
ASSIGN_TEXTS: Final = (
    "UPDATE near SET unit = (SELECT CASE WHEN trained THEN 9223372036854775807 ELSE -1 END FROM kept WHERE kept.near = near.near)"
    " WHERE near IN (SELECT near FROM kept)"
)
# Verdicts on an answer that name no label. What a person said later of the text supersedes an earlier up or down.
PREFERENCES: Final = """
SELECT f.id, lower(hex(f.prediction)), f.agent, f.task, q.text, q.second, r.outputs, f.verdict, f.value, f.person, f.at,
       CASE WHEN near.unit < ? THEN 'heldout' ELSE 'train' END, lower(hex(q.conversation))
FROM feedback AS f JOIN results AS r ON r.prediction = f.prediction AND r.agent = f.agent
JOIN requests AS q ON q.place = r.request AND q.stamp = r.stamp JOIN near ON near.near = q.near
WHERE f.verdict IN ('up', 'down', 'reward') AND f.left_out IS NULL AND f.consent
  AND NOT EXISTS (SELECT 1 FROM left_out WHERE left_out.place = f.place
                  AND reason NOT IN ('no_label', 'contradiction', 'outvoted'))
ORDER BY r.request, f.place
"""
# Delivered again, a prediction may have been drawn again.
DRAW: Final = "INSERT INTO drawn VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET rate = max(rate, excluded.rate)"
# The last up or down of each person on each prediction, those of one text together.
PAIRED: Final = """
SELECT f.task, q.text, q.second, f.agent, r.outputs, lower(hex(f.prediction)), f.verdict = 'up', f.person,
       CASE WHEN near.unit < ? THEN 'heldout' ELSE 'train' END, lower(hex(q.conversation))
FROM feedback AS f JOIN results AS r ON r.prediction = f.prediction AND r.agent = f.agent
JOIN requests AS q ON q.place = r.request AND q.stamp = r.stamp JOIN near ON near.near = q.near
WHERE f.verdict IN ('up', 'down') AND f.left_out IS NULL AND f.consent
  AND NOT EXISTS (SELECT 1 FROM left_out WHERE left_out.place = f.place
                  AND reason NOT IN ('no_label', 'contradiction', 'outvoted', 'superseded'))
  AND NOT EXISTS (SELECT 1 FROM feedback AS later WHERE later.prediction = f.prediction AND later.task = f.task
                  AND later.person = f.person AND later.left_out IS NULL AND later.verdict NOT IN ('withdrawn', 'reward')
                  AND (later.at, later.place) > (f.at, f.place))
ORDER BY f.task, q.text, f.agent, f.at, f.place
"""
# What was drawn at random is to be judged by, so it is never trained on; nor is the rest of its conversation.
HOLD_DRAWN_CONVERSATIONS: Final = (
    "UPDATE requests SET unit = -1 WHERE conversation IN (SELECT q.conversation FROM drawn AS d"
    " JOIN results AS r ON r.prediction = d.prediction JOIN requests AS q ON q.place = r.request AND q.stamp = r.stamp)"
)
HOLD_DRAWN_TEXTS: Final = (
    "UPDATE near SET unit = -1 WHERE near IN (SELECT q.near FROM drawn AS d"
    " JOIN results AS r ON r.prediction = d.prediction JOIN requests AS q ON q.place = r.request AND q.stamp = r.stamp)"
)
# Only a verdict on the prediction that was drawn, for the task that was drawn, makes a text one of the sample.
MARK_DRAWN: Final = (
    "INSERT INTO drawn_texts SELECT v.task, v.text_id, max(d.rate) FROM verdicts AS v JOIN feedback AS f ON f.place = v.place"
    " JOIN drawn AS d ON d.prediction = f.prediction AND d.task = v.task WHERE v.left_out IS NULL AND NOT v.denies"
    " GROUP BY v.task, v.text_id"
)
EXAMPLES: Final = """
INSERT INTO examples
SELECT texts.task, CASE WHEN near.unit < ? THEN 'heldout' ELSE 'train' END, request, texts.place, kind, target, people,
       rate
FROM texts CROSS JOIN requests ON requests.place = request CROSS JOIN near ON near.near = requests.near
LEFT JOIN drawn_texts AS d ON d.task = texts.task AND d.text_id = texts.text_id WHERE agreed
"""
KEYS: Final = """
SELECT count(*), count(*) FILTER (WHERE conversation IS NULL), count(DISTINCT conversation) FROM requests
WHERE place IN (SELECT request FROM examples)
"""
DISAGREE: Final = (
    # Who denies what nobody stands for contradicts nobody.
    "INSERT INTO contradictions SELECT v.task, t.request, v.target, v.kind, v.denies, v.person, v.place"
    " FROM verdicts AS v CROSS JOIN texts AS t ON t.task = v.task AND t.text_id = v.text_id"
    " CROSS JOIN said AS s ON s.task = v.task AND s.text_id = v.text_id AND s.kind = v.kind AND s.target = v.target"
    " WHERE v.left_out IS NULL AND NOT t.agreed AND s.people > 0",
    "INSERT INTO left_out SELECT place, left_out FROM verdicts WHERE left_out IS NOT NULL",
    "INSERT INTO left_out SELECT place, 'contradiction' FROM contradictions",
    "INSERT INTO left_out SELECT v.place, 'outvoted' FROM verdicts AS v CROSS JOIN texts AS t ON t.task = v.task"
    " AND t.text_id = v.text_id WHERE v.left_out IS NULL AND t.agreed"
    " AND v.denies = (v.target = t.target AND v.kind = t.kind)",
    "INSERT OR IGNORE INTO left_out SELECT place, 'no_label' FROM verdicts WHERE left_out IS NULL AND denies",
)
