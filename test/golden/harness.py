"""transformers' log-likelihoods of continuations by SmolLM2-135M-Instruct, as evaluation harnesses ask for them. fp32, eager attention.

    python test/golden/harness.py FOLDER

FOLDER is the fp32 checkpoint that smollm2.py --save writes. Made with torch 2.15.0, transformers 5.24.0.

fixtures/harness.json
    items: fifty, each with
      context; choices: four continuations, each with its leading space; answer: which is right;
      tokens: ids of context and each choice, no BOS added; context_tokens: how many of them are the context's;
      loglikelihoods: sum of natural log-probabilities of each choice's tokens; greedy: whether each token was the most probable
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

# Our own writing: context | right | wrong | wrong | wrong
ITEMS = """
To keep milk fresh, you should put it in the | fridge. | oven. | garden. | washing machine.
When the traffic light turned red, the driver | stopped the car. | opened the umbrella. | painted the wall. | went to sleep.
The opposite of hot is | cold. | warm. | red. | tall.
She was thirsty, so she drank a glass of | water. | sand. | paper. | wool.
The capital of France is | Paris. | Berlin. | Madrid. | Rome.
Birds use their wings to | fly. | read. | cook. | write.
He broke his leg, so the doctor put it in a | cast. | cup. | drawer. | sock.
At night the sky is | dark. | green. | loud. | sweet.
The farmer milked the | cow. | tractor. | fence. | well.
Two plus two equals | four. | seven. | nine. | twelve.
You cut bread with a | knife. | spoon. | pillow. | towel.
In winter the lake was covered with | ice. | fire. | sand. | coffee.
The luthier spent the afternoon repairing a | violin. | bridge over the river. | broken tooth. | pair of shoes.
The children built a castle out of | sand on the beach. | soup in the kitchen. | clouds in the sky. | music on the radio.
The sun rises in the | east. | west. | north. | evening.
To write on the blackboard, the teacher used | chalk. | butter. | a hammer. | a shoe.
The bakery smelled of fresh | bread. | gasoline. | paint. | rubber.
Fish breathe with their | gills. | wings. | feet. | ears.
He was late because he missed the | bus. | soup. | window. | colour.
The dog wagged its | tail. | book. | hat. | clock.
A year has twelve | months. | weeks. | hours. | seconds.
She put on her glasses to | read the small print. | lift the heavy box. | taste the soup. | hear the music.
The king wore a golden | crown. | river. | idea. | breakfast.
Bees make | honey. | bread. | cheese. | wine.
It started to rain, so we opened our | umbrellas. | sandwiches. | envelopes. | eyes to sleep.
The largest planet in our solar system is | Jupiter. | Mercury. | Mars. | Venus.
The mechanic repaired the engine of the | car. | apple. | song. | carpet.
Before eating you should wash your | hands. | roof. | bicycle. | window.
My grandmother knitted me a warm | sweater. | lamp. | plate. | ladder.
The author of Romeo and Juliet is | William Shakespeare. | Albert Einstein. | Isaac Newton. | Napoleon Bonaparte.
Plants need sunlight and | water to grow. | shoes to walk. | money to live. | books to learn.
The pilot landed the | plane safely. | spoon carefully. | river quietly. | song slowly.
She was so tired that she | fell asleep at once. | ran a marathon. | became a tree. | ate the table.
The cat chased the | mouse. | moon with a fork. | alphabet. | ocean.
The glass fell on the floor and | broke. | sang. | grew. | smiled.
Water boils at one hundred degrees | Celsius. | kilometres. | litres. | hours.
The firefighters put out the | fire. | homework. | bread. | melody.
To open the door he turned the | key. | page. | soup. | weather.
The orchestra played a beautiful | symphony. | sandwich. | staircase. | tax form.
In the library you should be | quiet. | wet. | purple. | frozen.
The nurse took the patient's | temperature. | guitar. | garden. | ticket to the moon.
After the storm a rainbow appeared in the | sky. | fridge. | pocket. | drawer.
A triangle has three | sides. | wheels. | kings. | minutes.
The tailor sewed a button on the | shirt. | stone. | lake. | cloud.
My card has not arrived yet. The customer is asking about a | card delivery. | weather forecast. | recipe for soup. | football match.
I was charged twice for the same purchase. The customer wants a | refund. | haircut. | puppy. | suntan.
The chemical symbol for water is | H2O. | CO2. | NaCl. | Fe.
He saved his money in a | bank. | puddle. | candle. | whistle.
The snail moves very | slowly. | loudly. | brightly. | sourly.
At the end of the concert the audience | applauded. | evaporated. | melted. | rusted.
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(args.folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    lines, right = [], 0
    for at, line in enumerate(ITEMS.strip().split("\n")):
        context, *choices = [part.strip() for part in line.split(" | ")]
        assert len(choices) == 4, line
        # The right one is not always the first.
        answer = at % 4
        choices[0], choices[answer] = choices[answer], choices[0]
        choices = [f" {choice}" for choice in choices]
        start = len(tokenizer.encode(context, add_special_tokens=False))
        item = {"context": context, "choices": choices, "answer": answer, "context_tokens": start,
                "tokens": [], "loglikelihoods": [], "greedy": []}
        for choice in choices:
            tokens = tokenizer.encode(context + choice, add_special_tokens=False)
            assert tokens[:start] == tokenizer.encode(context, add_special_tokens=False)
            with torch.no_grad():
                rows = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, :-1].double().log_softmax(-1)
            rows, own = rows[start - 1:], torch.tensor(tokens[start:])
            item["tokens"].append(tokens)
            item["loglikelihoods"].append(round(float(rows.gather(1, own[:, None]).sum()), 6))
            item["greedy"].append(bool((rows.argmax(-1) == own).all()))
        best = max(range(4), key=lambda i: item["loglikelihoods"][i])
        right += best == answer
        lines.append(json.dumps(item, ensure_ascii=False))
    print(len(lines), "items,", right, "answered right")
    path = Path(__file__).parent / "fixtures" / "harness.json"
    path.write_text('{"items": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
