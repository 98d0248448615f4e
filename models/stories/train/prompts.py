#!/usr/bin/env python3
"""Writes the beginnings of the stories of the training text, which SmolLM2-135M-Instruct continues.

    python3 prompts.py COUNT > prompts.jsonl

A prompt is two example stories, written for this purpose, and a title and first words put together
from lists. The examples make the model write short sentences in easy words. They change every GROUP
stories: this and the beginnings keep its stories different. The output is the same on every machine
and with every version of Python: the choice is by a generator in this file, not by a library's.
"""

import json
import sys

HEAD = "These are very short stories for small children. The words are easy and the sentences are short.\n\n"

EXAMPLES = (
    ("The red ball",
     "Tom had a red ball. He played with it in the park every day. One day the ball rolled into the pond. Tom was sad. \"My ball is gone,\" he "
     "said. A big duck saw the ball. The duck pushed it with its beak, and the ball came back to Tom. \"Thank you, duck!\" said Tom. He gave the "
     "duck some bread, and they were friends."),
    ("A cold night",
     "It was a cold night. The old cat sat by the fire. She heard a sound at the door. There was a little mouse in the snow. \"Please let me "
     "in,\" said the mouse. \"I am so cold.\" The cat thought about it. Then she opened the door. The mouse sat down by the fire, and the cat gave "
     "him a piece of cheese. All night long they told stories."),
    ("The broken cup",
     "Mia wanted to help her mother in the kitchen. She took a cup from the table, but it fell and broke. Mia was afraid. She wanted to hide. But "
     "then she went to her mother and said, \"I broke the cup. I am sorry.\" Her mother smiled. \"Thank you for telling me,\" she said. \"We will "
     "clean it together.\" Mia felt much better."),
    ("The seed",
     "Ben found a small seed in the garden. He put it in the ground and gave it water. Every morning he looked, but there was only brown earth. "
     "\"It does not grow,\" he said. \"You must wait,\" said his father. Ben waited. One day there was a green leaf, and in the summer there was a "
     "yellow flower. It was taller than Ben."),
    ("Lost in the woods",
     "A little bear walked into the woods to look for honey. He walked and walked. When he turned around, he did not know the way home. He sat "
     "down and cried. A bird flew down from a tree. \"Follow me,\" she sang. She flew from tree to tree, and the bear ran after her. Soon he saw his "
     "mother in front of their cave. She gave him a big hug."),
    ("Two boats",
     "Anna and Leo made boats of paper. Anna's boat was white and Leo's boat was blue. They put them on the river. The wind was strong and the "
     "boats went fast. \"Mine will win!\" said Leo. But his boat hit a stone and stopped. Anna took a long stick and set it free. \"Now they can go on "
     "together,\" she said."),
    ("The dark room",
     "Lily did not like the dark. There was something tall in the corner of her room. She called her brother. He came in and turned on the light. "
     "It was only her coat on a chair. They both laughed. After that, Lily said good night to her coat every evening, and she was not afraid."),
    ("Bread for everyone",
     "The baker got up when the moon was still in the sky. He made bread for the whole town. One morning he was ill. The people came, but there was "
     "no bread. So the teacher made the fire, the children mixed the flour, and an old woman showed them how. The bread was not very round, but the "
     "baker said it was the best he had ever had."),
    ("The slow horse",
     "There was a horse who was always late. The other horses ran, but he looked at the flowers and the clouds. One day there was a storm and a tree "
     "fell across the road. The fast horses ran into the mud. The slow horse stopped in time and called the farmer. \"You saved us,\" said the "
     "others. \"I only looked,\" said the slow horse."),
    ("Grandmother's clock",
     "The clock in the hall had stopped. Nora missed its sound. \"Can we mend it?\" she asked her grandmother. They opened the little door and looked "
     "inside. A spider had made a web around the wheel. Nora carried the spider to the window with care. Then the clock began to tick, and the "
     "spider made a new web outside."),
)

# Stories with the same examples.
GROUP = 24

NAMES = ("Anna Ben Clara Dan Ella Finn Grace Henry Iris Jack Kate Leo Mia Noah Olive Paul Rose Sam Tom Una Vera Will Zoe Max Lily Lucy Tim Amy "
         "Jane Mark Nora Peter Sue Bob Emma Adam Ruth Hugo").split()
HEROES = ("girl,boy,old man,old woman,dog,grey cat,mouse,bear,rabbit,duck,bird,horse,frog,fox,cow,sheep,bee,farmer,baker,sailor,teacher,gardener,"
          "fisherman,grandmother,postman,owl,king,queen,doctor,driver,hen,pig,goat,fish,turtle,hedgehog,squirrel,puppy,kitten,giant").split(",")
KINDS = "little old young small quiet happy sad clever lazy brave kind funny tired hungry lonely busy shy friendly".split()
PLACES = ("by the sea,in a garden,in the woods,on a farm,in a small town,near the school,in a warm kitchen,on a hill,by a river,in the snow,near the "
          "train,at the market,in the park,on a boat,in an old house,in a library,on the beach,in a field,under a big tree,near a bridge,in the "
          "mountains,by a pond,in a tall tower,at the end of the road,in a blue house").split(",")
THINGS = ("red ball,lost key,warm coat,letter,broken cup,wooden boat,box of apples,lamp,blue hat,kite,loaf of bread,basket,book,bell,little door,clock,"
          "picture,stone,egg,flower,cake,rope,ladder,drum,map,spoon,pair of shoes,blanket,bucket,bicycle,swing,tent,toy car,mirror,pencil,leaf,shell,"
          "candle,song,shadow,star,cloud,window,nest,umbrella,chair,bag,ring,train,soup").split(",")
TIMES = ("One day,One morning,One evening,In the spring,In the summer,In the autumn,In the winter,On Sunday,After school,Before dinner,Last night,"
         "Early in the morning,When it rained,At night,On a warm day,Today").split(",")
VERBS = ("found,lost,saw,wanted,made,carried,looked for,gave away,asked for,dreamed of,bought,painted,hid,remembered,opened,broke,borrowed,cleaned,"
         "shared,heard about").split(",")

BEGINNINGS = (
    "There was a {kind} {hero} who lived {place}.",
    "{name} was a {kind} {hero}. {name} lived {place}.",
    "{time} {name} {verb} a {thing}.",
    "{time} {name} and {other} went for a walk {place}.",
    "\"Where is the {thing}?\" asked {name}.",
    "{name} had a {thing}.",
    "{time} a {kind} {hero} {verb} a {thing} {place}.",
    "{name} and {other} were friends. {time} they {verb} a {thing}.",
    "\"I am {kind},\" said the {hero}.",
    "It was a {kind} day {place}. {name} {verb} a {thing}.",
    "The {hero} was {kind}.",
    "{name}'s mother gave {name} a {thing}.",
    "{time} there was a {thing} {place}.",
    "The {kind} {hero} said to {name}, \"",
    "{name} could not sleep.",
    "{time} it was very quiet {place}.",
)


class Random:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def pick(self, items):
        return items[self.next() % len(items)]


def with_article(text):
    """`a` before a vowel is `an`."""
    words = text.split(" ")
    for i in range(len(words) - 1):
        if words[i] in ("a", "A") and words[i + 1][0] in "aeiou":
            words[i] += "n"
    return " ".join(words)


def prompts(count, seed=1):
    """Examples, a title with the words that the story begins with, and these words alone."""
    random = Random(seed)
    for number in range(count):
        if number % GROUP == 0:
            first, second = random.pick(EXAMPLES), random.pick(EXAMPLES)
            while second is first:
                second = random.pick(EXAMPLES)
            examples = HEAD + "".join(f"Story: {title}\n{text}\n\n" for title, text in (first, second))
        name, other, thing = random.pick(NAMES), random.pick(NAMES), random.pick(THINGS)
        while other == name:
            other = random.pick(NAMES)
        title = random.pick(("The " + thing, "The " + random.pick(HEROES), name + " and " + other, "A " + random.pick(KINDS) + " day"))
        start = with_article(random.pick(BEGINNINGS).format(
            name=name, other=other, thing=thing, hero=random.pick(HEROES), kind=random.pick(KINDS), place=random.pick(PLACES),
            time=random.pick(TIMES), verb=random.pick(VERBS)))
        yield examples, f"Story: {with_article(title)}\n{start}", start


if __name__ == "__main__":
    for prefix, prompt, start in prompts(int(sys.argv[1])):
        print(json.dumps({"prefix": prefix, "prompt": prompt, "start": start}))
