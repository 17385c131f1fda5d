"""What the APIs of API-Bank's level 1 do and take, in our own words; the names are the data set's.

The mirror holds the dialogues without the documents of their APIs. Names of parameters and forms of values were read
off the dialogues' calls (Li et al., 2023; AlibabaResearch/DAMO-ConvAI, api-bank). Every value is text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOMENT = "as YYYY-MM-DD HH:MM:SS"
_DAY = "as YYYY-MM-DD"
_TOKEN = {"token": "the user's token, which GetUserToken returns"}
_AGENDA = {**_TOKEN, "content": "what the entry is about", "time": f"when, {_MOMENT}", "location": "where"}
_REMINDER = {**_TOKEN, "content": "what to be reminded of", "time": f"when, {_MOMENT}"}
_MEETING = {
    **_TOKEN,
    "meeting_topic": "the topic of the meeting",
    "start_time": f"when it begins, {_MOMENT}",
    "end_time": f"when it ends, {_MOMENT}",
    "location": "where it is held",
    "attendees": "who takes part, as a list of names: ['Ann', 'Bob']",
}
_APPOINTMENT = {"appointment_id": "the number of the appointment"}
_SCENE = {"name": "the name of the scene"}
_SWITCH = {"device_id": "the number of the device", "time": f"when, {_MOMENT}"}

_APIS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "AddAgenda": ("Adds an entry to the user's agenda.", _AGENDA),
    "AddAlarm": ("Sets an alarm.", {**_TOKEN, "time": f"when, {_MOMENT}"}),
    "AddMeeting": ("Books a meeting.", _MEETING),
    "AddReminder": ("Adds a reminder.", _REMINDER),
    "AppointmentRegistration": (
        "Books an appointment with a doctor.",
        {"patient_name": "the patient's name", "date": f"the day, {_DAY}", "doctor_name": "the doctor's name"},
    ),
    "BookHotel": (
        "Books rooms in a hotel.",
        {
            "hotel_name": "the hotel's name",
            "check_in_time": f"the first day, {_DAY}",
            "check_out_time": f"the last day, {_DAY}",
            "room_count": "how many rooms",
            "adult_count": "how many adults",
            "child_count": "how many children",
        },
    ),
    "Calculator": ("Works out a formula.", {"formula": "integers with + - * / and brackets: (1+2)*3"}),
    "CancelRegistration": ("Cancels an appointment with a doctor.", _APPOINTMENT),
    "CancelTimedSwitch": ("Cancels the timed switching of a device.", _SWITCH),
    "DeleteAccount": ("Deletes the user's account.", _TOKEN),
    "DeleteAgenda": ("Deletes an entry of the user's agenda.", _AGENDA),
    "DeleteAlarm": ("Deletes an alarm.", {**_TOKEN, "time": f"when it is set, {_MOMENT}"}),
    "DeleteMeeting": ("Cancels a meeting.", _MEETING),
    "DeleteReminder": ("Deletes a reminder.", _REMINDER),
    "DeleteScene": ("Deletes a scene of the smart home.", _SCENE),
    "Dictionary": ("Looks a word up in a dictionary.", {"keyword": "the word"}),
    "DocumentQA": ("Answers a question from a document.", {"url": "where the document is", "question": "the question"}),
    "EmergencyKnowledge": ("Says what to do about a sudden symptom.", {"symptom": "the symptom"}),
    "ForgotPassword": (
        "Sets a new password in two calls: the first sends a code to the user, the second takes it.",
        {
            "status": "'Forgot Password' in the first call, 'Verification Code' in the second",
            "username": "the user's name, in the first call",
            "email": "the user's e-mail address, in the first call",
            "verification_code": "the code, in the second call",
            "new_password": "the new password, in the second call",
        },
    ),
    "GetToday": ("Returns today's date.", {}),
    "GetUserToken": ("Returns the user's token.", {"username": "the user's name", "password": "the password"}),
    "ImageCaption": ("Describes an image.", {"url": "where the image is"}),
    "ModifyAgenda": ("Changes an entry of the user's agenda.", _AGENDA),
    "ModifyAlarm": (
        "Moves an alarm.",
        {**_TOKEN, "from_time": f"when it was set, {_MOMENT}", "to_time": f"when it shall be set, {_MOMENT}"},
    ),
    "ModifyMeeting": ("Changes a meeting.", _MEETING),
    "ModifyPassword": (
        "Changes the user's password.",
        {**_TOKEN, "old_password": "the password so far", "new_password": "the new one"},
    ),
    "ModifyRegistration": (
        "Changes an appointment with a doctor.",
        {**_APPOINTMENT, "new_appointment_date": f"the new day, {_DAY}", "new_appointment_doctor": "the new doctor"},
    ),
    "ModifyReminder": ("Changes a reminder.", _REMINDER),
    "OpenBankAccount": (
        "Opens a bank account.",
        {"account": "the account's name or number", "password": "its password", "name": "the holder's name"},
    ),
    "PlayMusic": ("Plays a piece of music.", {"music_name": "its name"}),
    "QueryAgenda": ("Looks up an entry of the user's agenda.", _AGENDA),
    "QueryAlarm": ("Looks up an alarm.", {**_TOKEN, "time": f"when it is set, {_MOMENT}"}),
    "QueryBalance": ("Returns the balance of the user's account.", _TOKEN),
    "QueryHealthData": (
        "Returns a user's health data of some time.",
        {
            "user_id": "the user's number",
            "start_time": f"the beginning, {_MOMENT}",
            "end_time": f"the end, {_MOMENT}",
        },
    ),
    "QueryHistoryToday": ("Says what happened on a day in history.", {"date": "the day, as MM-DD"}),
    "QueryMeeting": ("Looks up a meeting.", _MEETING),
    "QueryRegistration": (
        "Looks up an appointment with a doctor.",
        {"patient_name": "the patient's name", "date": f"the day, {_DAY}"},
    ),
    "QueryReminder": ("Looks up a reminder.", _REMINDER),
    "QueryScene": ("Looks up a scene of the smart home.", _SCENE),
    "QueryStock": ("Returns the price of a stock.", {"stock_code": "its symbol", "date": f"the day, {_DAY}"}),
    "RecordHealthData": (
        "Records a user's health data.",
        {
            "user_id": "the user's number",
            "time": f"when they were taken, {_MOMENT}",
            "health_data": "[{'name': 'blood_pressure', 'value': '120/80'}, {'name': 'heart_rate', 'value': '80'}]",
        },
    ),
    "RegisterUser": (
        "Makes an account for a new user.",
        {"username": "the user's name", "password": "the password", "email": "the e-mail address"},
    ),
    "SearchEngine": ("Searches the web.", {"keyword": "what to search for"}),
    "SendEmail": (
        "Sends an e-mail.",
        {"receiver": "the receiver's address", "subject": "the subject", "content": "the text"},
    ),
    "SpeechRecognition": ("Writes down what is said in a sound file.", {"url": "where the file is"}),
    "SymptomSearch": ("Looks up what a symptom may come from.", {"symptom": "the symptom"}),
    "TimedSwitch": (
        "Switches a device on or off at some time.",
        {**_SWITCH, "on": "'True' to switch it on, 'False' to switch it off"},
    ),
    "ToolSearcher": ("Searches the library of APIs and returns the documents found.", {"keywords": "a few words"}),
    "Translate": ("Translates a text.", {"src": "the text", "tgt_lang": "the language's code, such as en"}),
    "Wiki": ("Looks a subject up in an encyclopedia.", {"keyword": "the subject"}),
}

DOCUMENTS: Mapping[str, Mapping[str, Any]] = {
    name: {"description": description, "parameters": parameters} for name, (description, parameters) in _APIS.items()
}
