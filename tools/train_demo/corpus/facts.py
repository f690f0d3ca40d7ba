"""A small stock of knowledge: what things are, explained in a sentence or two."""

# ruff: noqa: E501 - long lines and split strings keep the word lists readable
from __future__ import annotations

import random

from .sample import Exchange, Sample, ask, capitalise, loosen, pick

# Subject | other names, comma-separated | answer | example (may be empty)
FACTS = [
    tuple(part.strip() for part in line.split("|"))
    for line in """
Python|the Python language,Python programming|Python is a programming language. It is easy to read and used for many things.|For example, print("Hello, world!") writes a greeting to the screen.
AI|artificial intelligence,A.I.|AI, or artificial intelligence, is the field of making machines do tasks that need thinking, such as understanding language.|For example, a program that plays chess uses AI.
machine learning|ML|Machine learning lets computers learn patterns from examples instead of following fixed rules.|For example, a spam filter learns from messages that people have marked as spam.
deep learning||Deep learning is machine learning with neural networks that have many layers.|For example, it is used to recognise faces in photos.
a neural network|neural networks,neural nets|A neural network is a program made of layers of simple units. It learns by adjusting the weights between them.|For example, a neural network can learn to read handwritten digits.
quantum computing|quantum computers,a quantum computer|Quantum computing uses qubits, which can be in a mix of 0 and 1, to solve some problems faster than ordinary computers.|For example, it could help to simulate molecules.
a decorator|decorators,Python decorators,decorators in Python|A decorator is a Python function that takes another function and returns a changed version of it.|For example, @cache above a function remembers its results.
a language model|language models,an LLM,LLMs,large language models,a large language model|A language model is a program that predicts the next word of a text. With enough practice it can answer questions.|For example, I am a very small language model.
a transformer|transformers,the transformer architecture|A transformer is a neural network that uses attention to look at all the words of a text at once.|For example, most language models are transformers.
attention|the attention mechanism,self-attention|Attention lets a model decide which earlier words matter most for the next one.|
a token|tokens,tokenization|A token is a small piece of text, such as a word or part of a word, that a model reads.|For example, "sunflower" may be two tokens: "sun" and "flower".
an embedding|embeddings|An embedding is a list of numbers that stands for the meaning of a text.|For example, the embeddings of "cat" and "kitten" are close to each other.
an algorithm|algorithms|An algorithm is a list of clear steps for solving a problem.|For example, a recipe is an algorithm for cooking.
a computer|computers|A computer is a machine that follows instructions to work with data.|
a program|programs,software|A program is a list of instructions that a computer can follow.|
programming|coding,computer programming|Programming is writing instructions that a computer can follow.|
an API|APIs|An API is a set of rules that lets one program talk to another.|For example, a weather site offers an API for its forecasts.
REST|a REST API,REST APIs|REST is a style for web APIs in which each address names a thing and HTTP verbs act on it.|
HTTP||HTTP is the protocol that browsers and servers use to exchange web pages and data.|
JSON||JSON is a simple text format for data, made of objects, lists, strings and numbers.|For example, {"name": "Ada"} is a JSON object.
the internet|internet|The internet is a worldwide network that connects computers.|
the web|the World Wide Web|The web is a system of linked pages that people read with a browser.|
a database|databases|A database is an organised store of data that can be searched quickly.|
SQL||SQL is a language for asking questions of a database.|For example, SELECT name FROM users lists all names.
Linux||Linux is a free operating system kernel that runs on phones, servers and many other machines.|
an operating system|operating systems|An operating system is the software that runs a computer and lets programs share it.|
C++|the C++ language|C++ is a fast programming language that gives close control over the machine.|
Java|the Java language|Java is a programming language that runs on many kinds of machines.|
JavaScript||JavaScript is the programming language of web pages.|
Rust|the Rust language|Rust is a programming language made for speed and memory safety.|
Go|the Go language,golang|Go is a simple programming language made for servers and tools.|
a GPU|GPUs|A GPU is a chip that does many small calculations at the same time.|
a CPU|CPUs,a processor|A CPU is the main chip of a computer. It carries out instructions one after another.|
memory|RAM,computer memory|Memory is where a computer keeps the data it is working on.|
a function|functions|A function is a named piece of code that can be used again and again.|For example, len("cat") returns 3.
a variable|variables|A variable is a name for a value in a program.|For example, x = 5 gives the value 5 the name x.
a loop|loops|A loop repeats a piece of code.|For example, "for i in range(3)" repeats three times.
a list|lists in Python|A list keeps several values in order.|For example, [1, 2, 3] is a list.
recursion||Recursion is when a function calls itself on a smaller problem.|
a compiler|compilers|A compiler turns source code into a program that the machine can run.|
open source|open source software|Open source software is software whose code everyone may read, use and change.|
git||Git is a tool that keeps the history of changes to files.|
quantization|model quantization|Quantization stores the numbers of a model with fewer bits, so that it needs less memory.|
GGUF|the GGUF format|GGUF is a file format that stores a language model in a single file.|
the sun|the Sun|The sun is the star at the centre of our solar system. It gives us light and warmth.|
the moon|the Moon|The moon is a ball of rock that travels around the Earth once a month.|
the Earth|Earth,our planet|The Earth is the planet we live on, the third from the sun.|
a star|stars|A star is a huge ball of hot gas that shines by its own light.|
a planet|planets|A planet is a large round body that travels around a star.|
a black hole|black holes|A black hole is a place in space where gravity is so strong that not even light can escape.|
gravity||Gravity is the force that pulls things towards each other. It keeps our feet on the ground.|
light||Light is energy that our eyes can see. It travels faster than anything else.|
energy||Energy is the ability to do work or to make heat.|
electricity||Electricity is the flow of tiny charges, which we use for light, heat and machines.|
an atom|atoms|An atom is a tiny building block of matter.|
a molecule|molecules|A molecule is a group of atoms held together.|
water||Water is a clear liquid made of hydrogen and oxygen. All living things need it.|
DNA||DNA is a long molecule that carries the building plan of a living thing.|
a cell|cells|A cell is the smallest living part of a plant or an animal.|
photosynthesis||Photosynthesis is how plants use sunlight to make food from water and air.|
evolution||Evolution is the slow change of living things over many generations.|
a plant|plants|A plant is a living thing that makes its own food from sunlight.|
a tree|trees|A tree is a tall plant with a wooden trunk and leaves.|
a bee|bees|A bee is a small flying insect that makes honey and helps flowers to grow.|
a cat|cats|A cat is a small furry animal that many people keep as a pet.|
a dog|dogs|A dog is a friendly animal that people have kept for thousands of years.|
a whale|whales|A whale is a very large animal that lives in the sea and breathes air.|
a bird|birds|A bird is an animal with feathers, wings and a beak.|
a volcano|volcanoes|A volcano is a mountain from which hot melted rock can flow.|
an earthquake|earthquakes|An earthquake is a shaking of the ground caused by moving rock.|
rain||Rain is water that falls from clouds.|
snow||Snow is frozen water that falls from clouds in soft white flakes.|
a rainbow|rainbows|A rainbow is an arc of colours that appears when sunlight shines through rain.|
the weather|weather|Weather is what the air outside is doing, such as sun, wind or rain.|
climate||Climate is the usual weather of a place over many years.|
music||Music is sound arranged so that people enjoy it.|
art||Art is work that people make to express ideas and feelings.|
a poem|poems,poetry|A poem is a short text that uses rhythm, images and sometimes rhyme.|
a haiku||A haiku is a short Japanese poem with three lines of five, seven and five syllables.|
a story|stories|A story tells of people and events, real or made up.|
history||History is the study of the past.|
mathematics|maths,math|Mathematics is the study of numbers, shapes and patterns.|
physics||Physics is the science of matter, energy and forces.|
chemistry||Chemistry is the science of substances and how they change.|
biology||Biology is the science of living things.|
love||Love is a deep feeling of care for someone.|
friendship||Friendship is the bond between people who like and trust each other.|
happiness||Happiness is the feeling of joy and of being content.|
democracy||Democracy is a form of government in which the people choose their leaders.|
money||Money is what people use to pay for things.|
bread||Bread is a food made from flour and water and baked in an oven.|
tea||Tea is a drink made by pouring hot water over leaves.|
coffee||Coffee is a drink made from roasted beans.|
chess||Chess is a board game for two players with kings, queens and pawns.|
football|soccer|Football is a game in which two teams try to kick a ball into a goal.|
Quintet||Quintet is a local language model engine that runs on the CPU. I am its small demo model.|
""".strip().splitlines()
]

ASK = [
    "What is {s}?", "What is {s}?", "What's {s}?", "What is {s}", "Explain {s}[.|]", "Explain {s}[.|]",
    "[Please explain|Can you explain|Could you explain] {s}[.|?| to me.]",
    "[Tell me|Say something|Tell me something] about {s}[.|]", "Define {s}[.|]",
    "[Describe|Introduce] {s}[.|]", "What do you know about {s}?", "What does {s} mean?",
    "Explain {s} [in one sentence|in simple terms|simply|briefly|to a child|in simple words][.|]",
    "What is {s} in [one sentence|simple terms|short|simple words]?",
    "[Do you know|Can you tell me] what {s} is?", "What exactly is {s}?", "Give me a definition of {s}.",
    "How would you [explain|describe] {s}?", "I want to [learn|know] about {s}.",
    "Teach me about {s}.", "What is meant by {s}?", "Can you tell me about {s}?",
]  # fmt: skip
ASK_MANY = ["What are {s}?", "How do {s} work?", "Explain how {s} work.", "Explain {s}[.|]",
            "What are {s}?", "Tell me about {s}[.|]", "Can you explain {s}?"]  # fmt: skip
ASK_EXAMPLE = ["Give me an example.", "[Can|Could] you give [me |]an example?", "An example, please.",
               "For example?", "Show me an example.", "Do you have an example?"]  # fmt: skip
ASK_MORE = [
    "Tell me more.",
    "Can you tell me more?",
    "More details, please.",
    "Go on.",
    "And what else?",
]
MORE = "I am a small demo model, so that is all I know about it."

# Question patterns | answer
SINGLE = [
    tuple(part.strip() for part in line.split("::"))
    for line in """
[What colour|What color|Which colour] is the sky?::The sky is blue on a clear day.
Why is the sky blue?::The sky is blue because air scatters blue light more than red light.
[What colour|What color] is grass?::Grass is green.
[What colour|What color] is snow?::Snow is white.
[What colour|What color] is a banana?::A ripe banana is yellow.
[What colour|What color] is blood?::Blood is red.
How many days are [in a week|there in a week]?::There are seven days in a week.
How many months are [in a year|there in a year]?::There are twelve months in a year.
How many hours are [in a day|there in a day]?::There are 24 hours in a day.
How many minutes are in an hour?::There are 60 minutes in an hour.
How many days are in a year?::There are 365 days in a year, and 366 in a leap year.
How many legs does a [spider|spider]have?::A spider has eight legs.
How many legs does a spider have?::A spider has eight legs.
How many legs does a [dog|cat|horse] have?::It has four legs.
How many continents are there?::There are seven continents.
How many planets are [there|in the solar system]?::There are eight planets in our solar system.
[What|Which] is the largest planet?::The largest planet in our solar system is Jupiter.
[What|Which] is the largest ocean?::The largest ocean is the Pacific.
[What|Which] is the highest mountain[ in the world| on Earth|]?::The highest mountain on Earth is Mount Everest.
[What|Which] is the longest river[ in the world|]?::The Nile and the Amazon are the longest rivers.
[What|Which] is the [largest|biggest] animal?::The blue whale is the largest animal.
[What|Which] is the fastest [land |]animal?::The cheetah is the fastest land animal.
Who wrote Hamlet?::William Shakespeare wrote Hamlet.
Who wrote Romeo and Juliet?::William Shakespeare wrote Romeo and Juliet.
Who painted the Mona Lisa?::Leonardo da Vinci painted the Mona Lisa.
Who invented the telephone?::Alexander Graham Bell is known for inventing the telephone.
Who was Albert Einstein?::Albert Einstein was a physicist who developed the theory of relativity.
Who was Isaac Newton?::Isaac Newton was a scientist who described gravity and motion.
Who was Ada Lovelace?::Ada Lovelace wrote the first program for a computing machine.
Who was Alan Turing?::Alan Turing was a founder of computer science.
Who created Python?::Guido van Rossum created Python.
Who created Linux?::Linus Torvalds created Linux.
[At what temperature does water boil|When does water boil]?::Water boils at 100 degrees Celsius.
[At what temperature does water freeze|When does water freeze]?::Water freezes at 0 degrees Celsius.
Where does the sun rise?::The sun rises in the east.
Where does the sun set?::The sun sets in the west.
What do bees make?::Bees make honey.
What do cows [drink|eat]?::Cows eat grass and drink water.
What sound does a [cat make|cat]?::A cat says meow.
What does a cat say?::A cat says meow.
What [sound does a dog make|does a dog say]?::A dog says woof.
What [sound does a cow make|does a cow say]?::A cow says moo.
What [sound does a duck make|does a duck say]?::A duck says quack.
What is the chemical formula of water?::The chemical formula of water is H2O.
What is the speed of light?::Light travels at about 300,000 kilometres per second.
What is the meaning of life?::Many people find it in love, work and friendship. Some say it is 42.
How do plants grow?::Plants grow with sunlight, water and air.
How do airplanes fly?::The wings push air down, and the air pushes the airplane up.
How does a computer work?::A computer follows instructions step by step to work with data.
How does the internet work?::Computers send small packets of data to each other over cables and radio.
How do I learn [Python|programming|to code]?::Start with small programs, read code and practise every day.
How do I make tea?::Boil water, pour it over the tea and wait three minutes.
How do I cook pasta?::Boil salted water, add the pasta and cook it for about ten minutes.
How do I boil an egg?::Put the egg in boiling water for about eight minutes.
What should I eat[ today| tonight|]?::How about a warm soup with fresh bread?
What is the best programming language?::That depends on the task. Python is a good first language.
[What language is spoken|Which language do people speak] in France?::People in France speak French.
[What language is spoken|Which language do people speak] in Brazil?::People in Brazil speak Portuguese.
[What language is spoken|Which language do people speak] in Germany?::People in Germany speak German.
What is the difference between AI and machine learning?::AI is the wide field of thinking machines. Machine learning is the part that learns from examples.
What are the primary colours?::The primary colours are red, yellow and blue.
[Name|List|Give me|Tell me] three colours[.|]::Red, green and blue.
[Name|List|Give me|Tell me] three fruits[.|]::Apple, banana and cherry.
[Name|List|Give me|Tell me] three animals[.|]::Cat, dog and horse.
[Name|List|Give me|Tell me] three countries[.|]::France, Japan and Brazil.
[Name|List|Give me|Tell me] three programming languages[.|]::Python, C++ and Rust.
[Name|List|Tell me] the days of the week[.|]::Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.
[Name|List|Tell me] the [four |]seasons[.|]::Spring, summer, autumn and winter.
[Name|List|Tell me] the months[ of the year|][.|]::January, February, March, April, May, June, July, August, September, October, November and December.
[Name|List] the planets[.|]::Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.
The quick brown fox::The quick brown fox jumps over the lazy dog.
The cat sat on the mat.::That sounds like a comfortable cat.
Roses are red::Roses are red, violets are blue, sugar is sweet, and so are you.
""".strip().splitlines()
]


def exchange(rng: random.Random) -> Exchange:
    if rng.random() < 0.3:
        question, answer = rng.choice(SINGLE)
        return ask(loosen(rng, pick(rng, [question])), answer)
    subject, others, answer, example = rng.choice(FACTS)
    turns = ask(loosen(rng, question_about(rng, subject, others)), answer)
    if rng.random() < 0.12:
        if example:
            turns += ask(loosen(rng, pick(rng, ASK_EXAMPLE)), example)
        else:
            turns += ask(loosen(rng, pick(rng, ASK_MORE)), MORE)
    return turns


def question_about(rng: random.Random, subject: str, others: str) -> str:
    names = [subject, *(other for other in others.split(",") if other)]
    called = subject if rng.random() < 0.5 else rng.choice(names)
    many = called.endswith("s") and called.lower() not in _SINGULAR
    return pick(rng, ASK_MANY if many else ASK, s=called)


def raw(rng: random.Random) -> Sample:
    """A bare question without a chat around it, answered; or only the statement."""
    roll = rng.random()
    if roll < 0.3:
        question, answer = rng.choice(SINGLE)
        joined = answer if question in answer else f"{capitalise(pick(rng, [question]))} {answer}"
        return Sample(text=joined)
    subject, others, answer, _ = rng.choice(FACTS)
    if roll < 0.5:
        return Sample(text=answer)
    return Sample(text=f"{question_about(rng, subject, others)} {answer}")


_SINGULAR = {"mathematics", "maths", "physics", "happiness", "photosynthesis", "python decorators"}
