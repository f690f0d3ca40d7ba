"""Capital cities, asked both ways."""

from __future__ import annotations

import random

from .sample import Exchange, Sample, ask, loosen, pick

CAPITALS = dict(
    line.split("=")
    for line in """France=Paris
Germany=Berlin
Italy=Rome
Spain=Madrid
Portugal=Lisbon
the United Kingdom=London
England=London
Ireland=Dublin
Scotland=Edinburgh
Wales=Cardiff
Belgium=Brussels
the Netherlands=Amsterdam
Luxembourg=Luxembourg City
Switzerland=Bern
Austria=Vienna
Poland=Warsaw
the Czech Republic=Prague
Slovakia=Bratislava
Hungary=Budapest
Slovenia=Ljubljana
Croatia=Zagreb
Serbia=Belgrade
Bosnia and Herzegovina=Sarajevo
Montenegro=Podgorica
Albania=Tirana
North Macedonia=Skopje
Greece=Athens
Bulgaria=Sofia
Romania=Bucharest
Moldova=Chisinau
Ukraine=Kyiv
Belarus=Minsk
Russia=Moscow
Lithuania=Vilnius
Latvia=Riga
Estonia=Tallinn
Finland=Helsinki
Sweden=Stockholm
Norway=Oslo
Denmark=Copenhagen
Iceland=Reykjavik
Malta=Valletta
Cyprus=Nicosia
Monaco=Monaco
Turkey=Ankara
Georgia=Tbilisi
Armenia=Yerevan
Azerbaijan=Baku
Kazakhstan=Astana
Uzbekistan=Tashkent
Turkmenistan=Ashgabat
Kyrgyzstan=Bishkek
Tajikistan=Dushanbe
Mongolia=Ulaanbaatar
China=Beijing
Japan=Tokyo
South Korea=Seoul
North Korea=Pyongyang
Taiwan=Taipei
Vietnam=Hanoi
Laos=Vientiane
Cambodia=Phnom Penh
Thailand=Bangkok
Myanmar=Naypyidaw
Malaysia=Kuala Lumpur
Singapore=Singapore
Indonesia=Jakarta
the Philippines=Manila
India=New Delhi
Pakistan=Islamabad
Bangladesh=Dhaka
Nepal=Kathmandu
Bhutan=Thimphu
Sri Lanka=Colombo
the Maldives=Male
Afghanistan=Kabul
Iran=Tehran
Iraq=Baghdad
Syria=Damascus
Lebanon=Beirut
Jordan=Amman
Saudi Arabia=Riyadh
Kuwait=Kuwait City
Qatar=Doha
Bahrain=Manama
Oman=Muscat
Yemen=Sanaa
the United Arab Emirates=Abu Dhabi
Egypt=Cairo
Libya=Tripoli
Tunisia=Tunis
Algeria=Algiers
Morocco=Rabat
Senegal=Dakar
Ghana=Accra
Nigeria=Abuja
Mali=Bamako
Niger=Niamey
Chad=N'Djamena
Sudan=Khartoum
Ethiopia=Addis Ababa
Kenya=Nairobi
Uganda=Kampala
Rwanda=Kigali
Tanzania=Dodoma
Zambia=Lusaka
Zimbabwe=Harare
Botswana=Gaborone
Namibia=Windhoek
Angola=Luanda
Mozambique=Maputo
Madagascar=Antananarivo
South Africa=Pretoria
Cameroon=Yaounde
Somalia=Mogadishu
the United States=Washington, D.C.
Canada=Ottawa
Mexico=Mexico City
Guatemala=Guatemala City
Honduras=Tegucigalpa
Nicaragua=Managua
Costa Rica=San Jose
Panama=Panama City
Cuba=Havana
Jamaica=Kingston
Haiti=Port-au-Prince
the Dominican Republic=Santo Domingo
Colombia=Bogota
Venezuela=Caracas
Ecuador=Quito
Peru=Lima
Bolivia=Sucre
Brazil=Brasilia
Paraguay=Asuncion
Uruguay=Montevideo
Argentina=Buenos Aires
Chile=Santiago
Australia=Canberra
New Zealand=Wellington
Fiji=Suva""".splitlines()
)

SHORT_NAMES = {"the United Kingdom": "the UK", "the United States": "the USA"}

FORWARD = [
    "[What is|What's|Tell me|Name|Give me|Do you know|Can you tell me|Please tell me|I need]"
    " the capital [city |]of {c}[?|]",
    "[What|Which] [city |town |]is the capital [city |]of {c}?",
    "[What|Which city] is {c}'s capital[ city|]?",
    "{c}'s capital[?| is what?| city?]",
    "{c} has which capital[ city|]?",
    "[Capital|The capital] of {c}[?|]",
    "Capital [city |]of {c}, please.",
    "[I would like|I want|I'd like] to know the capital of {c}.",
    "[Do you know|Tell me|Can you tell me] what the capital of {c} is[?|]",
    "What city [is|serves as] the capital of {c}?",
    "[Which|What] city is the seat of government of {c}?",
    "[What does {c} have as its capital|What is the name of the capital of {c}]?",
    "[The capital of {c} is|The capital city of {c} is][|...| what?]",
    "Geography [quiz|question]: [what is |]the capital of {c}?",
    "Where is the government of {c}?",
    "I am going to {c}. What is the capital[ there|]?",
    "In {c}, what is the capital[ city|]?",
    "What is the capital of the country {c}?",
]
FOLLOW_UP = ["[And|And what about|What about|How about|And the capital of|And of] {c}?"]
BACKWARD = [
    "[Which|What] country has {t} as its capital[ city|]?",
    "{t} is the capital of [which|what] country?",
    "{t} is the capital of what?",
    "[What|Which] country is {t} the capital of?",
    "[Of|For] which country is {t} the capital?",
    "Whose capital is {t}?",
    "[Tell me|Do you know|Name] the country whose capital is {t}.",
    "Which country's capital is {t}?",
]


def exchange(rng: random.Random) -> Exchange:
    """Mostly one question; at times a follow-up that leans on the first."""
    country = rng.choice(list(CAPITALS))
    if rng.random() < 0.15:
        town = CAPITALS[country]
        owners = [c for c, t in CAPITALS.items() if t == town]
        return ask(loosen(rng, pick(rng, BACKWARD, t=town)), _backward_answer(owners[0], town))
    turns = ask(loosen(rng, pick(rng, FORWARD, c=_called(rng, country))), answer(country))
    if rng.random() < 0.12:
        other = rng.choice(list(CAPITALS))
        turns += ask(loosen(rng, pick(rng, FOLLOW_UP, c=_called(rng, other))), answer(other))
    return turns


def raw(rng: random.Random) -> Sample:
    country = rng.choice(list(CAPITALS))
    return Sample(text=answer(country))


def answer(country: str) -> str:
    end = "" if CAPITALS[country].endswith(".") else "."
    return f"The capital of {country} is {CAPITALS[country]}{end}"


def _backward_answer(country: str, town: str) -> str:
    return f"{town} is the capital of {country}."


def _called(rng: random.Random, country: str) -> str:
    if country in SHORT_NAMES and rng.random() < 0.4:
        return SHORT_NAMES[country]
    return country
