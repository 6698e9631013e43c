"""An agent of your own: it reads shop reviews and hands the complaints to the analysis agent.

Start it beside the analysis agent, in this folder, with a model that has a task called sentiment:

    murmura topics --create analysis e03_own_agent:complaints
    murmura serve analysis e03_own_agent:complaints --model FOLDER
"""

from murmura import Publish, agent


@agent(topics=["shop.reviews"], tasks=["sentiment"], output="shop.moods")
def complaints(request, prediction):
    if prediction["sentiment"]["label"] == "negative":
        return prediction.outputs, Publish("murmura.analysis.requests", request.value, key=request.key)
    return prediction.outputs
